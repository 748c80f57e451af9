-- As of when was looked the last time; what is found now and was not then, under any version of its rule, and nobody has
-- dismissed: number, and what it claims, nano-USD.
SELECT
  (SELECT looked_at FROM read_parquet($settings, hive_partitioning = false)),
  count(*),
  CAST(coalesce(sum(claimed_usd), 0) * 1000000000 AS BIGINT)
FROM waste_found
  ANTI JOIN read_parquet($found, hive_partitioning = false) USING (rule, group_key)
  ANTI JOIN (FROM waste_verdicts WHERE state = 'dismissed') AS dismissed USING (rule, group_key)
