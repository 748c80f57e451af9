-- What is found now and was not found the last time: number, and what it claims, nano-USD.
SELECT count(*), CAST(coalesce(sum(claimed_usd), 0) * 1000000000 AS BIGINT)
FROM waste_found ANTI JOIN read_parquet($before, hive_partitioning = false) USING (finding_id)
