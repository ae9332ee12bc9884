"""A service under load: arrivals, the queue before it, percentiles, the largest rate. No clock of its own."""
