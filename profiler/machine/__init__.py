"""This machine: devices, sensors, drivers, and how busy it is."""
