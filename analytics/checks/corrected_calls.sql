-- Each correction is of a call that was booked, and a corrected call counts once.
SELECT call_id, corrected_at, segment
FROM restated_calls ANTI JOIN booked_calls USING (call_id, recorded_at)
