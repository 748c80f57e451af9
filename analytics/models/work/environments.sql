-- Environments that are production. One row per environment.
-- @environment: Its name, in lower case
-- Those of [work] environments are added when `outlay sync` runs.
SELECT DISTINCT lower(trim(environment)) AS environment
FROM (
  FROM read_parquet('lake:work/**/environments.parquet', union_by_name = true, hive_partitioning = false)
  UNION ALL
  SELECT unnest(['production', 'prod', 'live'])
)
