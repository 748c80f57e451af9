-- A board of tokens, as it hung in the hall: input and output of teams in the measured quarter, most first.
SELECT team_id, CAST(sum(input_tokens + output_tokens) AS BIGINT) AS tokens
FROM calls
WHERE started_at >= $from AND started_at < $to AND purpose IS NULL AND team_id <> ''
GROUP BY team_id
ORDER BY tokens DESC, team_id
