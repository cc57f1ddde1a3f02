"""How well the tracker works on the rendered scene with several birds, at 5, 15 and 30 frames/s.

    python benchmarks/stream/tracking.py --work DIR [--fps 15] [--seeds 0-7] [--seconds 60]

Each scene is rendered, found (motion) and classified with examples/birds.finedge once; that is kept
in DIR. Then the tracker runs over it, and is compared with the scene's truth. A row for each rate
goes to benchmarks/results/tracking/rows.jsonl.

The rules and constants of the tracker were chosen on seeds 0 to 7, at 15 and 5 frames/s. One rule
(`Trail.follow`: a track at the edge of the frame is not sure) came after a look at seeds 16 to 23.
The results of seeds 24 and above, and of 30 frames/s, were seen once, when all rules were final.

What is counted:

- a true visit: a bird that shows for at least `LEAST_S`, with more than `SEEN` of it, and until it
  is gone for longer than the visit gap;
- an event: a visit that the tracker ended. It is right if at least `PURE` of its boxes are those of
  one true visit, and their times overlap by `TIMES` (intersection over union). A true visit has one
  right event at most;
- a switch: the track of a true visit is another one than in the last frame in which it had one, as
  in CLEAR MOT (IDSW); frames in which it has none, or shares it, do not count;
- `track_cpu_ms`: CPU time of the tracker for a frame, without finding, colours and classifier;
- labels: of single frames (the first label of each box of one bird), and of visits: the fixed
  label (`visit_label_right`, with the share that stays unknown), and the first one of the pooled
  probabilities, sure or not (`visit_top_right`).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import finedge
from finedge.runtime.classifier import Classifier
from finedge.runtime.find.box import Box
from finedge.runtime.find.camera import CameraFinder
from finedge.runtime.find.motion import MotionFinder
from finedge.runtime.machine.cpu import cpu_name
from finedge.runtime.stream.objects import is_cut
from finedge.runtime.track.colours import colours_of
from finedge.runtime.track.looks import Looks
from finedge.runtime.track.pool import SureRule, weight_of
from finedge.runtime.track.track import Sighting, Track, TrackRule
from finedge.runtime.track.tracker import Tracker
from finedge.synthetic.flock import Flock, SceneBird

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "benchmarks/results/tracking/rows.jsonl"
LEAST_S, SEEN, PURE, TIMES, SAME = 1.0, 0.3, 0.8, 0.5, 0.3


@dataclass(frozen=True)
class Moment:
    """A frame: its time, what was found in it, and what is in it."""

    seconds: float
    sightings: tuple[Sighting, ...]
    birds: tuple[SceneBird, ...]

    def bird_of(self, box: Box) -> SceneBird | None:
        """Return the bird that a box is around, if it is one."""
        overlaps = [Box(*bird.box).overlap(box) for bird in self.birds]
        if not overlaps or max(overlaps) < SAME:
            return None
        return self.birds[int(np.argmax(overlaps))]


@dataclass
class Counts:
    """What was counted over all scenes of a rate."""

    visits: int = 0
    events: int = 0
    right: int = 0
    switches: int = 0
    frames: int = 0
    moments: int = 0
    cpu_s: float = 0.0
    frames_right: int = 0
    tops_right: int = 0
    labels: Counter[str] = field(default_factory=Counter)


def moments(path: Path, *, seed: int, fps: float, seconds: float, birds: int) -> list[Moment]:
    """Return the frames of a scene, from a file where they are kept."""
    if not path.exists():
        _record(path, seed=seed, fps=fps, seconds=seconds, birds=birds)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.setdefault("cut", [is_cut(Box(*b), (720, 1280)) for b in line["boxes"]])
    return [_moment(line) for line in lines]


def _record(path: Path, *, seed: int, fps: float, seconds: float, birds: int) -> None:
    scene, finder = Flock(birds, seed=seed, fps=fps), CameraFinder(MotionFinder())
    with Classifier.open(
        ROOT / "examples/birds.finedge", variant="int8", backend="onnxruntime", threads=1
    ) as classifier:
        lines = [_line(scene, finder, classifier, index) for index in range(round(seconds * fps))]
    part = path.with_suffix(".partial")
    part.write_text("".join(json.dumps(line) + "\n" for line in lines))
    part.rename(path)


def _line(scene: Flock, finder: CameraFinder, classifier: Classifier, index: int) -> dict[str, Any]:
    image, seconds = scene.frame(index), index / scene.fps
    boxes = finder(image, seconds=seconds)
    crops = [finder.crop(image, box) for box in boxes]
    whole = classifier.bundle.spec.preprocess.resize
    scores = classifier.scores(classifier.prepare(crops)) if crops else None
    p = [] if scores is None else list(classifier.probabilities(scores))
    return {
        "seconds": seconds,
        "boxes": [[box.x, box.y, box.w, box.h] for box in boxes],
        "p": [np.round(row, 5).tolist() for row in p],
        "colours": [np.round(colours_of(image, box), 5).tolist() for box in boxes],
        "weights": [
            weight_of(crop, whole=whole, cut=is_cut(box, image.shape))
            for crop, box in zip(crops, boxes, strict=True)
        ],
        "cut": [is_cut(box, image.shape) for box in boxes],
        "birds": [vars(bird) for bird in scene.truth(index)],
    }


def _moment(line: dict[str, Any]) -> Moment:
    sightings = tuple(
        Sighting(Box(*box), Looks(np.array(colours, np.float32), np.array(p)), weight, cut)
        for box, colours, p, weight, cut in zip(
            *(line[key] for key in ("boxes", "colours", "p", "weights", "cut")), strict=True
        )
    )
    birds = tuple(
        SceneBird(tuple(b["box"]), b["species"], b["individual"], b["visit"], b["seen"])
        for b in line["birds"]
        if b["seen"] > SEEN
    )
    return Moment(line["seconds"], sightings, birds)


@dataclass
class Scene:
    """One scene: who was tracked where."""

    labels: Sequence[str]
    sure: SureRule
    boxes: dict[int, list[SceneBird | None]] = field(default_factory=lambda: defaultdict(list))
    tracks: dict[int, Track] = field(default_factory=dict)
    ended: list[Track] = field(default_factory=list)
    last: dict[int, int] = field(default_factory=dict)  # the track of each true visit
    switch_log: list[tuple[float, int, int, int]] = field(default_factory=list)

    def run(self, frames: Sequence[Moment], rule: TrackRule, counts: Counts) -> None:
        """Track all frames, and count."""
        tracker = Tracker(rule)
        counts.moments += len(frames)
        for moment in frames:
            start = time.process_time()
            matches = tracker(moment.sightings, seconds=moment.seconds)
            counts.cpu_s += time.process_time() - start
            for match in matches:
                if not match.alone:
                    continue
                sighting = moment.sightings[match.box]
                bird = moment.bird_of(sighting.box)
                match.track.pool.add(sighting.looks.p, weight=sighting.weight)
                self.boxes[match.track.number].append(bird)
                seen_s = match.track.seen_at - match.track.began
                match.track.pool.fix(self.sure, seconds=seen_s)
                if bird is not None:
                    self._count_box(bird, match.track, sighting, counts, moment.seconds)
            self.ended += tracker.ended
        self.ended += tracker.close()

    def _count_box(
        self, bird: SceneBird, track: Track, sighting: Sighting, counts: Counts, seconds: float
    ) -> None:
        counts.frames += 1
        counts.frames_right += self.labels[int(sighting.looks.p.argmax())] == bird.species
        if not track.confirmed:
            return
        before = self.last.get(bird.visit, track.number)
        if before != track.number:
            counts.switches += 1
            self.switch_log.append((seconds, bird.visit, before, track.number))
        self.last[bird.visit] = track.number


def judge(scene: Scene, frames: Sequence[Moment], counts: Counts) -> list[str]:
    """Compare the ended tracks of a scene with its true visits; return what went wrong."""
    times: dict[int, list[float]] = defaultdict(list)
    species: dict[int, str] = {}
    for moment in frames:
        for bird in moment.birds:
            times[bird.visit].append(moment.seconds)
            species[bird.visit] = bird.species
    visits = {v: (t[0], t[-1]) for v, t in times.items() if t[-1] - t[0] >= LEAST_S}
    counts.visits += len(visits)
    answered: set[int] = set()
    problems = [f"switch {entry}" for entry in scene.switch_log]
    for track in scene.ended:
        visit = _visit_of(scene.boxes[track.number])
        if visit is not None and visit not in visits:
            continue  # too short to count, for either side
        counts.events += 1
        span = (track.began, track.seen_at)
        if visit is None or visit in answered or _overlap(span, visits[visit]) < TIMES:
            visits_of_boxes = Counter(b.visit if b else None for b in scene.boxes[track.number])
            problems.append(
                f"event {track.number} {span} {dict(visits_of_boxes)} {visit and visits[visit]}"
            )
            continue
        answered.add(visit)
        counts.right += 1
        counts.tops_right += scene.labels[int(track.pool.p.argmax())] == species[visit]
        counts.labels[_verdict(track, scene, species[visit])] += 1
    problems += [f"missed {v} {visits[v]}" for v in visits if v not in answered]
    return problems


def _verdict(track: Track, scene: Scene, species: str) -> str:
    track.pool.fix(scene.sure, seconds=float("inf"))
    if track.pool.label is None:
        return "unknown"
    return "right" if scene.labels[track.pool.label] == species else "wrong"


def _visit_of(boxes: Sequence[SceneBird | None]) -> int | None:
    visits_of_boxes = Counter(bird.visit for bird in boxes if bird is not None)
    if not visits_of_boxes:
        return None
    visit, count = visits_of_boxes.most_common(1)[0]
    return visit if count >= PURE * sum(visits_of_boxes.values()) else None


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    common = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, common) / (max(one[1], other[1]) - min(one[0], other[0]) + 1e-9)


def row(counts: Counts, options: argparse.Namespace, *, fps: float, seeds: int) -> dict[str, Any]:
    """Return what is kept of a rate."""
    commit = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return {
        "fps": fps,
        "birds": options.birds,
        "seeds": options.seeds,
        "scene_seconds": options.seconds * seeds,
        "visits": counts.visits,
        "events": counts.events,
        "event_precision": round(counts.right / max(1, counts.events), 4),
        "event_recall": round(counts.right / max(1, counts.visits), 4),
        "switches": counts.switches,
        "switches_per_100_visits": round(100 * counts.switches / max(1, counts.visits), 2),
        "frames": counts.frames,
        "frame_label_right": round(counts.frames_right / max(1, counts.frames), 4),
        "visit_label_right": round(counts.labels["right"] / max(1, counts.right), 4),
        "visit_top_right": round(counts.tops_right / max(1, counts.right), 4),
        "visit_label_unknown": round(counts.labels["unknown"] / max(1, counts.right), 4),
        "track_cpu_ms": round(1e3 * counts.cpu_s / max(1, counts.moments), 3),
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "finedge": finedge.__version__,
        "opencv": cv2.__version__,
        "commit": subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--fps", type=float, nargs="*", default=[5.0, 15.0, 30.0])
    parser.add_argument("--seeds", default="0-7")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--birds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="write the rows to benchmarks/results")
    parser.add_argument("--problems", action="store_true", help="print what went wrong")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    for fps in options.fps:
        result = measure(options, fps)
        print(json.dumps(result))
        if options.keep:
            ROWS.parent.mkdir(parents=True, exist_ok=True)
            with ROWS.open("a") as file:
                file.write(json.dumps(result) + "\n")


def measure(options: argparse.Namespace, fps: float) -> dict[str, Any]:
    """Return the row of a rate."""
    labels = finedge.Bundle.load(ROOT / "examples/birds.finedge").spec.labels
    counts, seeds = Counts(), list(_seeds(options.seeds))
    for seed in seeds:
        name = f"b{options.birds}-f{fps:g}-s{seed}-{options.seconds:g}.jsonl"
        path = options.work / name
        frames = moments(path, seed=seed, fps=fps, seconds=options.seconds, birds=options.birds)
        scene = Scene(labels, SureRule())
        scene.run(frames, TrackRule(), counts)
        problems = judge(scene, frames, counts)
        if options.problems:
            print(*(f"fps {fps:g} seed {seed}: {problem}" for problem in problems), sep="\n")
    return row(counts, options, fps=fps, seeds=len(seeds))


def _seeds(text: str) -> Iterator[int]:
    first, _, last = text.partition("-")
    return iter(range(int(first), int(last or first) + 1))


if __name__ == "__main__":
    main()
