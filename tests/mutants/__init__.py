"""Wrong programs by the hundred: mutants of the package, each run against the tests of its line."""
