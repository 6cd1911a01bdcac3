"""Files, processes, signals, memory and the console; nothing of learning."""
