"""What a reconcile costs: processes, wall and CPU time and peak memory, beside the plain tool in the same run."""
