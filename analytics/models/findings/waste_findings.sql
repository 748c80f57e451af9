-- Waste that was found, with its evidence, and what people said of it, as of a stated moment. One row per finding.
-- @state: new, accepted, dismissed; an accepted one is fixed when no call came for 14 days, and regressed when one came after that
-- @reason: Why it was dismissed: intended, test, wrong_tag, false_positive, other
-- @reviewed_at: When it was last reviewed, UTC
-- @precision: Accepted findings of the rule among those that people judged; NULL until one was
-- @finding_id: Hash of rule, its version and group_key: the same each time
-- @kind: A part of the rule's findings that is shown apart
-- @ticket_id: Ticket that it is about, of rules about tickets
-- @team_id: Team whose keys made the calls; NULL where several did
-- @teams: Teams whose keys made the calls
-- @models: Models that answered
-- @calls: Number of calls
-- @unpriced_calls: Calls without a price; they are in no sum
-- @first_call_at: Start of the first call, UTC
-- @last_call_at: Start of the last call, UTC
-- @recoverable_usd: What could have been saved, USD; findings share calls, so sums count dollars twice: sum claimed_usd
-- @low_usd: What could certainly have been saved, USD
-- @high_usd: What could have been saved at best, USD
-- @claimed_usd: The part of recoverable_usd that no other rule claims before, USD
-- @also_in: Other rules that found some of the calls
-- @sentence: What was found, in words
-- @evidence: The numbers that were compared, thresholds and version of the rule, bounds and moment of judgement, as JSON
-- @call_ids: The calls, in their order
-- @group_key: What makes it one finding
-- @as_of: Moment of judgement, UTC
-- The keeper writes what waste_found says; reviews count at once.
WITH judged AS (
  SELECT
    found.*, titles.title, titles.precision, verdicts.state AS verdict, verdicts.reason, verdicts.reviewed_at,
    [reviewed_at] || list_filter(called_at, lambda t: t > reviewed_at) AS moments,
    to_days(CAST(settings.fixed_days AS INTEGER)) AS quiet
  FROM read_parquet('lake:findings/found.parquet', hive_partitioning = false) AS found
    JOIN waste_rules AS titles USING (rule)
    LEFT JOIN waste_verdicts AS verdicts USING (rule, group_key)
    CROSS JOIN waste_settings
)
SELECT
  finding_id, rule, title, rule_version, precision, kind,
  CASE
    WHEN verdict IS NULL THEN 'new'
    WHEN verdict <> 'accepted' THEN verdict
    WHEN as_of >= moments[-1] + quiet THEN 'fixed'
    WHEN list_bool_or([moments[i + 1] >= moments[i] + quiet FOR i IN range(1, len(moments))]) THEN 'regressed'
    ELSE 'accepted'
  END AS state,
  reason, reviewed_at, team_id, teams, ticket_id, models, calls, unpriced_calls, first_call_at, last_call_at,
  recoverable_usd, low_usd, high_usd, claimed_usd, also_in, sentence, evidence, call_ids, group_key, as_of
FROM judged
