"""A rendered fine-grained data set: birds whose species differ only in small parts. numpy and cv2 only, seeded, offline."""
