-- Calendar periods of the budgets in force, from the last year to the next. One row per kind of period, time zone and period.
-- @period: day, week, month, quarter
-- @timezone: In whose midnight it begins
-- @period_start: First moment, UTC
-- @period_end: First moment of the next one, UTC
-- The keeper writes what gateway/periods.py says, so that all count alike, whatever time zones a reader's DuckDB knows.
FROM read_parquet('lake:budgets/calendar.parquet', hive_partitioning = false)
