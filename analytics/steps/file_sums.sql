-- Rows and their list cost in whole nano-USD, as a file has them.
SELECT
  count(*) AS calls,
  coalesce(sum(CAST(CAST(list_cost_usd AS DECIMAL(28,9)) * 1000000000 AS BIGINT)), 0) AS list_cost_nano
FROM read_parquet($file, hive_partitioning = false)
