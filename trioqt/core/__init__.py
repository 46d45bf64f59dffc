"""What is true: values and tables, with no task, clock or socket."""
