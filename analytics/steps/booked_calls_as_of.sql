-- All calls as first recorded, before the variable as_of.
FROM all_booked_calls
WHERE recorded_at < getvariable('as_of')
