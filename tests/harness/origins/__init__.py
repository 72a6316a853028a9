"""The internet of the tests: a network namespace with name server and origins, behind one interface."""
