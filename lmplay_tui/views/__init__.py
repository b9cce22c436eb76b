"""What the screens say: lines, rows and charts made of runs and answers. Pure."""
