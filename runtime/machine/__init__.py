"""What this machine is: its CPU and memory, and the small files of /sys and /proc that say so."""
