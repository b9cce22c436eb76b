"""What keeps a run from being lost: checkpoints, their retention, the states of every generator, and full disks."""
