-- A work table without the rows whose first column is one of some.
CREATE OR REPLACE TEMP TABLE merged AS
SELECT
  row(*COLUMNS(getvariable('key'))) AS row_key,
  CASE WHEN list_contains($gone, COLUMNS(getvariable('key')[1:1])) THEN 'gone' ELSE 'kept' END AS what,
  fields
FROM read_parquet($stored, union_by_name = true, hive_partitioning = false) AS fields
