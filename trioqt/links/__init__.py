"""Where bytes go: kernel sockets, simulated sockets and trio streams behind one seam."""
