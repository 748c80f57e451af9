-- Normalized deployments: units of work that arrived in production, by size, survival and independence. One row per shown group and window.
-- @team_id: Team, or (other): teams with too few builders, put together
-- @window_start: First day of the window, UTC
-- @window_end: First day after it, UTC
-- @as_of: As of when that was worked out, UTC
-- @state: settled; settling: over, but not all of its units are settled; open: not over yet
-- @builders: Builders, on average over the window
-- @builder_weeks: Weeks that they had in the window, up to now; of a settled window, as it was written down
-- @authors: Authors of what arrived; NULL when they are fewer than are shown
-- @units: Settled units of work, each where most of it was written
-- @pending_units: Units that do not count yet
-- @unreviewed_units: Settled units with a pull request that nobody else approved
-- @reopened_units: Settled units that were opened again, or needed a hotfix
-- @failed_units: Settled units of which a deployment failed
-- @unsized_prs: Pull requests of unknown size; they count nothing
-- @median_lines: Median size of the settled units
-- @survival_14: Part of the lines of settled units that was not taken back until they were settled
-- @survival_30: Part of the lines that was not taken back within 30 days, of units that are so old
-- @nd: Normalized deployments of settled units
-- @nd_low: … and their 90 % interval: from here, had other units come from the same work (bootstrap over units)
-- @nd_high: … to here
-- @nd_per_builder_week: nd by builder-week; NULL unless the window is settled
-- @is_frozen: Whether all its yardsticks were written down before it was measured
-- The keeper writes what models/measures/normalized_deployments.sql says.
FROM read_parquet('lake:scorecard/normalized_deployments.parquet', hive_partitioning = false)
WHERE CASE WHEN getvariable('as_of') IS NULL THEN true ELSE error(
  'this is written down as of one moment: ask as of another with outlay report scorecard --as-of, outlay sql --as-of, or analytics.open(as_of=…)'
) END
