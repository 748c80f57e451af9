-- Constants of the scorecard, as the settings had them, and the quarters that they are for. One row per version.
-- @version: Number of the version, from 1
-- @since: When they were first seen in the settings, UTC
-- @applies_from: First day that they are for: of the quarter after that, so that they are known before it begins; of the first version since ever
-- @applies_to: First day that they are not for any more
-- @period: Window that is looked at: month or quarter
-- @production: Environments that are production: [work] environments, as they were then
-- @epic_types: Types of tickets that are no root: what is below them is not one piece of work
-- @merged_repos: Repositories whose changes arrive when they are merged
-- @join_hours: Pull requests of one author merged so many hours apart may be one piece of work
-- @join_overlap: … if they share this part of their files
-- @settle_days: So long after its date a unit of work is settled
-- @fail_hours: A deployment that failed within so many hours is none
-- @tiny_lines: A unit of so few lines that nobody approved counts nothing
-- @first_median_lines: Median unit until there was a quarter to take it from
-- @units_min: With fewer units nothing is said
-- @windows_min: With fewer earlier windows nothing is compared
-- @windows_back: So many earlier windows are a team's own past
-- @builders_min: Smaller groups are not shown
-- @samples: Number of bootstrap samples
-- @seed: Seed of the bootstrap
SELECT
  *,
  CASE WHEN row_number() OVER versions = 1 THEN TIMESTAMP '-infinity'
    ELSE date_trunc('quarter', since) + INTERVAL 3 MONTH END AS applies_from,
  coalesce(date_trunc('quarter', lead(since) OVER versions) + INTERVAL 3 MONTH, TIMESTAMP 'infinity') AS applies_to
FROM read_parquet('lake:scorecard/terms.parquet', hive_partitioning = false)
WINDOW versions AS (ORDER BY version)
