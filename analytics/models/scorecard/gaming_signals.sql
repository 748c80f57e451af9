-- Signs that something may be gamed: to be looked at, never a verdict, and about nobody alone. One row per shown group, window and signal.
-- @team_id: Team, or (other): teams with too few builders, put together
-- @window_start: First day of the window, UTC
-- @signal: split_prs, smaller_prs, tiny_tickets, parked_tag, spend_without_outcome, prs_without_outcome, end_burst, unreviewed, instant_approval, clockwork
-- @cases: Of how many pull requests, tickets, sessions or calls it tells
-- @value: How strong it is, as a factor or a share; what of, the evidence says
-- @usd: What the calls in question cost, USD; NULL where it is about no calls
-- @evidence: The same in words
-- @as_of: As of when that was worked out, UTC
-- The keeper writes what models/measures/gaming_signals.sql says.
FROM read_parquet('lake:scorecard/gaming_signals.parquet', hive_partitioning = false)
WHERE CASE WHEN getvariable('as_of') IS NULL THEN true ELSE error(
  'this is written down as of one moment: ask as of another with outlay report scorecard --as-of, outlay sql --as-of, or analytics.open(as_of=…)'
) END
