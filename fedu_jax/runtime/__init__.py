"""Files, processes, signals, memory and the console; knows no learning."""
