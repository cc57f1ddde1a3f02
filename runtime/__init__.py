"""Running a bundle on the device: backends, classifier, sources, stream, benchmark, report. Never imports torch."""
