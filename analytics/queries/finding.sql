-- A finding with its evidence and what was said of it.
SELECT
  finding_id, rule, title, rule_version, kind, state, reason, team_id, ticket_id, models, calls, unpriced_calls,
  first_call_at, last_call_at, recoverable_usd, low_usd, high_usd, claimed_usd, also_in, sentence, precision, as_of,
  evidence, call_ids, group_key,
  coalesce((
    SELECT list({reviewed_at: reviewed_at, reviewed_by: reviewed_by, state: r.state, reason: r.reason, note: note}
      ORDER BY reviewed_at, line)
    FROM waste_reviews AS r
    WHERE r.rule = waste_findings.rule AND r.group_key = waste_findings.group_key
  ), []) AS reviews
FROM waste_findings
WHERE finding_id = $finding_id AND ($team IS NULL OR team_id = $team)
