"""The machine: memory, processes, devices and clusters that carry out tasks."""
