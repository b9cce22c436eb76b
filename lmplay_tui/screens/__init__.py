"""The screens, one file each; each is imported when it is first shown."""
