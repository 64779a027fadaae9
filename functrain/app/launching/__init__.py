"""`--nproc`: one command, several processes on this machine. It imports the standard library only."""
