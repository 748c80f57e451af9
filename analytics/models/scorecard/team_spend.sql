-- What teams' calls cost, by how it is known what they were for. One row per team and window.
-- @team_id: Team whose keys made the calls; NULL for keys of none
-- @window_start: First day of the window, UTC
-- @calls: Number of calls
-- @unpriced_calls: Calls without a price; they are in no sum
-- @covered_calls: Calls that are for a ticket or a declared purpose
-- @spend_usd: What all of them cost, USD: the contracted cost, else that at list price. The other columns sum to it
-- @direct_usd: … for one ticket, by evidence of their own
-- @inherited_usd: … for one ticket, that of their task
-- @split_usd: … for several tickets
-- @overhead_usd: … for a declared purpose and no ticket
-- @unattributed_usd: … for nothing that anybody told
-- @disputed_usd: … for tickets that they were probably not for
-- @waste_usd: Part of spend_usd that rules of waste claim, each dollar once
WITH known AS (
  SELECT
    nullif(team_id, '') AS team_id, started_at, coalesce(contracted_cost_usd, list_cost_usd) AS cost_usd,
    CAST(least(coalesce(disputed_usd, 0), coalesce(contracted_cost_usd, list_cost_usd, 0)) AS DECIMAL(18,9)) AS disputed_usd,
    CASE
      WHEN len(tickets) > 1 THEN 'split'
      WHEN len(tickets) = 1 AND ticket_source = 'task' THEN 'inherited'
      WHEN len(tickets) = 1 THEN 'direct'
      WHEN purpose IS NOT NULL THEN 'overhead'
      ELSE 'unattributed'
    END AS known_by,
    claimed_usd
  FROM calls
    LEFT JOIN disputed_spend USING (call_id)
    LEFT JOIN (SELECT call_id, claimed_usd FROM waste_claimed) AS claims USING (call_id)
)
SELECT
  team_id,
  date_trunc(period, started_at) AS window_start,
  count(*) AS calls,
  count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced_calls,
  count(*) FILTER (WHERE known_by <> 'unattributed') AS covered_calls,
  coalesce(sum(cost_usd), 0) AS spend_usd,
  coalesce(sum(cost_usd - disputed_usd) FILTER (WHERE known_by = 'direct'), 0) AS direct_usd,
  coalesce(sum(cost_usd - disputed_usd) FILTER (WHERE known_by = 'inherited'), 0) AS inherited_usd,
  coalesce(sum(cost_usd - disputed_usd) FILTER (WHERE known_by = 'split'), 0) AS split_usd,
  coalesce(sum(cost_usd - disputed_usd) FILTER (WHERE known_by = 'overhead'), 0) AS overhead_usd,
  coalesce(sum(cost_usd - disputed_usd) FILTER (WHERE known_by = 'unattributed'), 0) AS unattributed_usd,
  coalesce(sum(disputed_usd) FILTER (WHERE cost_usd IS NOT NULL), 0) AS disputed_usd,
  coalesce(sum(claimed_usd), 0) AS waste_usd
FROM known JOIN scorecard_terms ON started_at >= applies_from AND started_at < applies_to
GROUP BY team_id, window_start
