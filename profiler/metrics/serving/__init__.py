"""A service under load: arrivals, the queue before it, percentiles with bounds, the largest rate. No clock of its own."""
