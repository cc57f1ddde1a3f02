"""What Home Assistant's MQTT discovery reads: one device, and its entities for each camera.

The payloads are retained below PREFIX/COMPONENT/DEVICE/OBJECT/config. Source:
home-assistant.io/integrations/mqtt/#mqtt-discovery. Four entities a camera:

    sensor         the label of the last visit; its record as attributes
    sensor         the visits of today; those of each label as attributes
    binary_sensor  whether something is there
    image          the best crop of the last visit (Home Assistant 2023.7 and later)

All are unavailable while the run is away: the broker then publishes the last will.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from finedge import __version__

ONLINE, OFFLINE = "online", "offline"
PRESENT, ABSENT = "ON", "OFF"


def status_topic(topic: str) -> str:
    """Return the topic that says whether the run is connected."""
    return f"{topic}/status"


def camera_topic(topic: str, stream: int, name: str) -> str:
    """Return a topic of one camera, such as `finedge/camera0/last`."""
    return f"{topic}/camera{stream}/{name}"


def discovery(
    topic: str, *, prefix: str, title: str, cameras: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the topic and the payload of each entity.

    Args:
        topic: of the run.
        prefix: of Home Assistant, usually `homeassistant`.
        title: the bundle's name.
        cameras: the names of the sources, in their order.
    """
    device_id = _device_id(topic)
    device = {
        "identifiers": [device_id],
        "name": f"finedge {title}",
        "manufacturer": "finedge",
        "model": title,
        "sw_version": __version__,
    }
    for stream in range(len(cameras)):
        camera = f" {stream}" if len(cameras) > 1 else ""
        for component, name, payload in _entities(topic, stream, camera=camera):
            object_id = f"camera{stream}_{name}"
            yield (
                f"{prefix}/{component}/{device_id}/{object_id}/config",
                {
                    "unique_id": f"{device_id}_{object_id}",
                    "availability_topic": status_topic(topic),
                    "payload_available": ONLINE,
                    "payload_not_available": OFFLINE,
                    "device": device,
                    "origin": {"name": "finedge", "sw_version": __version__},
                    **payload,
                },
            )


def _device_id(topic: str) -> str:
    """Return what Home Assistant knows the run by: another one for each topic."""
    name = re.sub(r"[^A-Za-z0-9-]", "_", topic)
    if re.fullmatch(r"[A-Za-z0-9/-]*", topic):
        return f"finedge_{name}"
    return f"finedge_{name}_{hashlib.sha256(topic.encode()).hexdigest()[:8]}"


def _entities(topic: str, stream: int, *, camera: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    last, today = (camera_topic(topic, stream, name) for name in ("last", "today"))
    yield (
        "sensor",
        "last",
        {
            "name": f"Last visit{camera}",
            "state_topic": last,
            # A state has at most 255 characters.
            "value_template": "{{ value_json.label[:255] }}",
            "json_attributes_topic": last,
            "icon": "mdi:bird",
        },
    )
    yield (
        "sensor",
        "today",
        {
            "name": f"Visits today{camera}",
            "state_topic": today,
            "value_template": "{{ value_json.visits }}",
            "json_attributes_topic": today,
            "state_class": "total_increasing",
            "unit_of_measurement": "visits",
            "icon": "mdi:counter",
        },
    )
    yield (
        "binary_sensor",
        "present",
        {
            "name": f"Present{camera}",
            "state_topic": camera_topic(topic, stream, "present"),
            "payload_on": PRESENT,
            "payload_off": ABSENT,
            "device_class": "occupancy",
        },
    )
    yield (
        "image",
        "crop",
        {
            "name": f"Last crop{camera}",
            "image_topic": camera_topic(topic, stream, "crop"),
            "content_type": "image/jpeg",
        },
    )
