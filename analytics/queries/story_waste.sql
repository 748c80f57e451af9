-- The waste of one team that most money was claimed for, with what was found, in words.
SELECT rule, count(*) AS findings, sum(claimed_usd) AS claimed_usd, arg_max(sentence, claimed_usd) AS evidence
FROM waste_findings
WHERE team_id = $team AND first_call_at >= $from AND first_call_at < $to AND claimed_usd > 0
GROUP BY rule
ORDER BY claimed_usd DESC, rule
LIMIT 5
