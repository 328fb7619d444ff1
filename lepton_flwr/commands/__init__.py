"""What `lepton` can do: one file for each command or group of commands."""
