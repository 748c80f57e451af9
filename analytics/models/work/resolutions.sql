-- What was said here of resolutions: whether tickets that ended so were delivered. One row per resolution.
-- @resolution: Resolution, in the tracker's word
-- @is_delivering: Whether what such a ticket asked for is there
FROM read_parquet('lake:work/**/resolutions.parquet', union_by_name = true, hive_partitioning = false)
