-- What the rules of waste find now, with its money and its evidence. One row per finding.
-- @kind: A part of the rule's findings that is shown apart
-- @team_id: Team whose keys made the calls; NULL where several did
-- @teams: Teams whose keys made the calls
-- @models: Models that answered
-- @calls: Number of calls
-- @unpriced_calls: Calls without a price; they are in no sum
-- @call_ids: The calls, in their order
-- @called_at: When they started, UTC, in their order
-- @first_call_at: Start of the first call, UTC
-- @last_call_at: Start of the last call, UTC
-- @recoverable_usd: What could have been saved, USD; findings share calls, so sums count dollars twice: sum claimed_usd
-- @low_usd: What could certainly have been saved, USD
-- @high_usd: What could have been saved at best, USD
-- @claimed_usd: The part of recoverable_usd that no other rule claims before, USD
-- @also_in: Other rules that found some of the calls
-- @evidence: The numbers that were compared, thresholds and version of the rule, bounds and moment of judgement, as JSON
-- @as_of: Moment of judgement, UTC
WITH sums AS (
  SELECT
    finding_id,
    list_sort(list(DISTINCT team_id) FILTER (team_id IS NOT NULL)) AS teams,
    bool_and(team_id IS NOT NULL) AS all_have_teams,
    list_sort(list(DISTINCT model) FILTER (model IS NOT NULL)) AS models,
    count(*) AS calls,
    count(*) FILTER (cost_nano IS NULL AND is_counted) AS unpriced_calls,
    list(call_id ORDER BY started_at, call_id) AS call_ids,
    list(started_at ORDER BY started_at, call_id) AS called_at,
    CAST(coalesce(sum(recoverable_nano), 0) AS BIGINT) * 0.000000001 AS recoverable_usd,
    CAST(coalesce(sum(low_nano), 0) AS BIGINT) * 0.000000001 AS low_usd,
    CAST(coalesce(sum(high_nano), 0) AS BIGINT) * 0.000000001 AS high_usd
  FROM waste_hit_calls
  GROUP BY finding_id
),
claimed AS (
  SELECT finding_id, sum(claimed_usd) AS claimed_usd
  FROM (SELECT unnest(parts, max_depth := 2) FROM waste_claims)
  GROUP BY finding_id
),
flags AS (
  SELECT call_id, list(DISTINCT rule) AS rules FROM waste_hit_calls GROUP BY call_id HAVING count(DISTINCT rule) > 1
),
others AS (
  SELECT finding_id, list_sort(list(DISTINCT other) FILTER (other <> rule)) AS also_in
  FROM (SELECT finding_id, rule, unnest(rules) AS other FROM waste_hit_calls JOIN flags USING (call_id))
  GROUP BY finding_id
)
SELECT
  finding_id, rule, rule_version, hits.kind, group_key, hits.ticket_id,
  CASE WHEN len(teams) = 1 AND all_have_teams THEN teams[1] END AS team_id,
  coalesce(teams, []) AS teams, coalesce(models, []) AS models, sums.calls, unpriced_calls, call_ids, called_at,
  called_at[1] AS first_call_at, called_at[-1] AS last_call_at,
  CAST(recoverable_usd AS DECIMAL(18,9)) AS recoverable_usd,
  CAST(low_usd AS DECIMAL(18,9)) AS low_usd,
  CAST(high_usd AS DECIMAL(18,9)) AS high_usd,
  CAST(coalesce(claimed_usd, 0) AS DECIMAL(18,9)) AS claimed_usd,
  coalesce(also_in, []) AS also_in,
  sentence,
  CAST(to_json({
    sentence: sentence, numbers: CAST(numbers AS JSON), rule_version: rule_version,
    parameters: CAST(hits.parameters AS JSON),
    low_usd: CAST(low_usd AS VARCHAR), high_usd: CAST(high_usd AS VARCHAR), also_in: coalesce(also_in, []), as_of: as_of
  }) AS VARCHAR) AS evidence,
  as_of
FROM waste_hits AS hits
  JOIN sums USING (finding_id)
  LEFT JOIN claimed USING (finding_id)
  LEFT JOIN others USING (finding_id)
  CROSS JOIN waste_terms
