"""What commands print: runs, lists of them, recipes, explanations, the gate's verdict, progress.
Names from a run or a model cannot steer the terminal."""
