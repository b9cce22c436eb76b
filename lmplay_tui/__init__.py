"""The workbench: the terminal screens of lmplay.

It reads run directories and talks to subprocesses; it never imports torch, so nothing that a model does can freeze it.
"""
