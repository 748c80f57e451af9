-- All calls booked on the day that the variable since names, or later.
FROM all_calls
WHERE day >= getvariable('since')
