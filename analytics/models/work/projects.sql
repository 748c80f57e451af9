-- Projects whose tickets are known. One row per project.
-- @project: What comes before the number of its tickets: PAY, acme/shop
-- @synced_at: When its tickets were last read, all that were there, UTC; NULL when some had to be left out
FROM read_parquet('lake:work/**/projects.parquet', union_by_name = true, hive_partitioning = false)
