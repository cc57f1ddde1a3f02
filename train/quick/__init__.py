"""Training on cached feature maps of a frozen backbone: `finedge train --quick`."""
