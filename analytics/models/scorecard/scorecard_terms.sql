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
-- @join_lines: Pull requests of fewer lines that one author merged on one day, UTC, are one piece of work
-- @settle_days: So long after its date a unit of work is settled
-- @tiny_lines: A unit of so few lines that nobody approved counts nothing
-- @first_median_lines: Median unit until there was a quarter to take it from
-- @units_min: With fewer units nothing is said
-- @windows_min: With fewer earlier windows nothing is compared
-- @windows_back: So many earlier windows are a team's own past
-- @builders_min: Smaller groups are not shown
-- @signal_min: So many pull requests or tickets are the fewest that a sign of gaming is about.
-- @signal_share: … and this part of all: of pull requests, or of the spend on tickets.
-- @signal_growth: Pull requests that grew by this factor are looked at, …
-- @signal_spend: … and spend that grew by this one, …
-- @signal_flat: … when what came of them grew by this one at most.
-- @signal_parts: So many pull requests in one piece of work are a split one.
-- @signal_minutes: Tickets closed, and pull requests merged, within so many minutes of being opened are looked at.
-- @signal_burst_days: In the last so many days of a window …
-- @signal_burst: … so many times the usual number arrives.
-- @signal_parked: A ticket that costs so many times the median may carry what is for others.
-- @signal_sessions: So many sessions are the fewest that a sign of gaming is about, …
-- @signal_calls: … of at least so many calls, …
-- @signal_evenness: … whose pauses vary by this part of their mean at most.
-- @samples: Number of bootstrap samples
-- @seed: Seed of the bootstrap
SELECT
  * EXCLUDE (as_of),
  CASE WHEN row_number() OVER versions = 1 THEN TIMESTAMP '-infinity'
    ELSE date_trunc('quarter', since) + INTERVAL 3 MONTH END AS applies_from,
  coalesce(date_trunc('quarter', lead(since) OVER versions) + INTERVAL 3 MONTH, TIMESTAMP 'infinity') AS applies_to
FROM read_parquet('lake:scorecard/terms.parquet', hive_partitioning = false) CROSS JOIN as_of
WHERE version <= 1 OR since < as_of.as_of
WINDOW versions AS (ORDER BY version)
