"""What training costs: operations counted, steps timed, runs foretold, here and on other devices."""
