-- Median sizes of units of work, by which those of the next quarter are measured, as they were written down. One row per quarter and repository, and one of the whole organisation.
-- @quarter: First day of the quarter that is measured by it
-- @repo: Repository; NULL for the whole organisation, which is the yardstick of repositories with fewer units than the scorecard needs
-- @median_lines: Median lines of the units in the quarter before, tiny ones left out; at least seven tenths of that of the quarter before it
-- @units: Number of those units
-- @frozen_at: When the keeper wrote it down, in the first week of the quarter, UTC
SELECT * EXCLUDE (as_of)
FROM read_parquet('lake:scorecard/yardsticks.parquet', hive_partitioning = false) CROSS JOIN as_of
WHERE frozen_at < as_of
QUALIFY row_number() OVER (PARTITION BY quarter, repo ORDER BY frozen_at) = 1
