"""The command line: one file per command, settings in, printed result out."""
