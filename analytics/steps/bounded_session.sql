-- What does not fit goes to the disk. A bar would be drawn into whatever stdout is.
SET memory_limit = '1GB';
SET enable_progress_bar = false
