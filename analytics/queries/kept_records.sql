-- How many calls and corrections there are, and when the last of each was recorded: what tells that there are new ones.
SELECT *
FROM (SELECT count(*) AS calls, max(recorded_at) AS last_call_at FROM booked_calls),
  (SELECT count(*) AS corrections, max(corrected_at) AS last_correction_at FROM restated_calls)
