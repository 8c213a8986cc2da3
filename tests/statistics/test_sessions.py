"""The order of sessions: dates, numbers and labels as studies really have them."""

from __future__ import annotations

import pytest

from bids_muscle.errors import UsageError
from bids_muscle.statistics.sessions import label_key, order_sessions, session_years

Times = dict[str, dict[str, str]]

#: Labels in the order of time.
STUDIES = [
    'pre post',
    'preop postop',
    'baseline followup',
    'intake discharge',
    'm0 m3 m12',
    'week2 week10',
    '2 10',
    'baseline 6m 1y 2y',
    'BL FU1 FU2 FU10',
    'screening baseline mid post followup final',
    'T1pre T1post T2pre T2post',
    'first second third',
    'test retest',
    'pre2w post2w',
    'visit1 visit2 visit11',
    'pre post1w post6m',
]


def visits(*people: Times) -> dict[str, Times]:
    return {f'sub-{number:02d}': person for number, person in enumerate(people, start=1)}


def times(**acq_times: str) -> Times:
    return {f'ses-{name}': {'acq_time': time} if time else {} for name, time in acq_times.items()}


@pytest.mark.parametrize('study', STUDIES)
def test_labels_tell_the_order(study: str) -> None:
    names = [f'ses-{label}' for label in study.split()]
    order = order_sessions(visits(*[{name: {} for name in names[::-1]}] * 3))
    assert (order.names, order.source, order.notes) == (tuple(names), 'labels', ())


@pytest.mark.parametrize(
    'study', ['A B', 'rehab surgery', 'w6 post', 'verum placebo', 'pre baseline']
)
def test_labels_that_do_not_tell_are_said(study: str) -> None:
    order = order_sessions(visits({f'ses-{label}': {} for label in study.split()}))
    assert set(order.names) == {f'ses-{label}' for label in study.split()}
    assert 'uncertain' in order.text
    assert all(f'ses-{label}' in order.notes[0] for label in study.split())
    assert '--session-order' in order.notes[0]


def test_one_session_or_none_needs_no_order() -> None:
    for only in ({'n/a': {}}, {'ses-x': {}}):
        assert order_sessions(visits(only)).notes == ()


@pytest.mark.parametrize(
    ('early', 'late'),
    [
        ('2019-03-01T10:00:00', '2019-05-01T09:00:00'),
        ('1877-06-07T10:00:00.250000', '1877-06-08T09:00:00'),
        ('2019-03-01', '2019-03-01T09:00:00Z'),
    ],
)
def test_dates_decide_also_where_they_are_shifted_or_some_lack(early: str, late: str) -> None:
    known, unknown = times(b=early, a=late), times(a='', b='')
    unread = times(a='01/05/2019', b='01/03/2019')
    # Somebody else has another date, so that these are not one date for all.
    other = times(a='1900-01-02')
    order = order_sessions(visits(known, unknown, unread, times(a=late), other))
    assert (order.names, order.source, order.notes) == (('ses-b', 'ses-a'), 'acq_time', ())


def test_dates_of_most_people_overrule_labels_and_say_so() -> None:
    order = order_sessions(visits(*[times(pre='2020-02-02', post='2020-01-01')] * 4))
    assert order.names == ('ses-post', 'ses-pre')
    assert 'their labels say the opposite' in order.notes[0]


def test_a_wrong_date_of_one_person_turns_no_cohort_round() -> None:
    wrong = times(pre='2020-02-02', post='2020-01-01')
    for others in (times(pre='', post=''), times(pre='2019-02-02', post='2020-01-01')):
        order = order_sessions(visits(wrong, *[others] * 9))
        assert order.names == ('ses-pre', 'ses-post')
        [note] = order.notes
        assert 'sub-01' in note
        assert 'sub-02' not in note


def test_a_crossover_has_no_common_order() -> None:
    one, other = times(a='2020-01-01', b='2020-02-02'), times(b='2020-01-01', a='2020-02-02')
    order = order_sessions(visits(*[one, other] * 6))
    assert order.names == ('ses-a', 'ses-b')
    assert 'uncertain' in order.text
    assert 'In 6 of 12 participants' in order.notes[0]


@pytest.mark.parametrize('time', ['1925-01-01T00:00:00', '1925-01-01T11:00:00'])
def test_one_date_for_everybody_says_nothing(time: str) -> None:
    person = times(post='1925-01-01T00:00:00', pre=time)
    order = order_sessions(visits(*[person] * 5))
    assert (order.names, order.source) == (('ses-pre', 'ses-post'), 'labels')


def test_sessions_on_one_day_are_ordered_by_the_hour() -> None:
    people = [times(b=f'2020-01-{day}T09:00:00', a=f'2020-01-{day}T10:00:00') for day in (10, 11)]
    assert order_sessions(visits(*people)).names == ('ses-b', 'ses-a')


def test_numbers_of_sessions_tsv_decide_where_there_is_no_date() -> None:
    person = {'ses-b': {'days_since_first': '0'}, 'ses-a': {'days_since_first': '84'}}
    order = order_sessions(visits(*[person] * 3))
    assert (order.names, order.source) == (('ses-b', 'ses-a'), 'sessions.tsv')
    aged = {'ses-b': {'age': '41', 'mood': '9'}, 'ses-a': {'age': '41', 'mood': '1'}}
    assert 'uncertain' in order_sessions(visits(aged)).text


def test_codes_with_a_line_between_are_no_numbers() -> None:
    coded = {'ses-b': {'visit': '1_2'}, 'ses-a': {'visit': '2_1'}}
    assert 'uncertain' in order_sessions(visits(*[coded] * 3)).text
    days = {'ses-b': {'days': '1_0'}, 'ses-a': {'days': '2_0'}}
    assert session_years(visits(days)) == {}


def test_some_sessions_by_date_and_others_by_label() -> None:
    people = [times(pre='2020-01-01', surgery='2020-01-05', post='2020-02-01')] * 2
    order = order_sessions(visits(*people, times(pre='', followup='')))
    assert order.names == ('ses-pre', 'ses-surgery', 'ses-post', 'ses-followup')
    assert order.source == 'acq_time and labels'


def test_dates_in_a_circle_leave_the_order_of_the_labels() -> None:
    people = [
        times(s1='2020-01-01', s2='2020-01-02'),
        times(s2='2020-01-01', s3='2020-01-02'),
        times(s3='2020-01-01', s1='2020-01-02'),
    ]
    order = order_sessions(visits(*people))
    assert order.names == ('ses-s1', 'ses-s2', 'ses-s3')
    assert any('ses-s3 came before ses-s1' in note for note in order.notes)


def test_the_order_given_decides_and_what_speaks_against_it_is_said() -> None:
    people = [times(a='2020-01-01', b='2020-02-01')] * 2
    order = order_sessions(visits(*people), ['b', 'a', 'later'])
    assert (order.names, order.source) == (('ses-b', 'ses-a'), '--session-order')
    assert 'sub-01, sub-02' in order.notes[0]
    with pytest.raises(UsageError, match='lacks ses-b'):
        order_sessions(visits(*people), ['a', 'B'])
    with pytest.raises(UsageError, match='names ses-a more than once') as caught:
        order_sessions(visits(*people), ['a', 'b', 'a'])
    assert 'List each session once' in caught.value.remedy


def test_more_than_ten_people_are_counted() -> None:
    order = order_sessions(visits(*[times(a='2020-01-01', b='2020-02-01')] * 12), ['b', 'a'])
    assert 'sub-10 and 2 more)' in order.notes[0]


def test_the_key_is_one_for_every_label() -> None:
    labels = ['ses-', 'ses-1', 'ses-a', '', 'n/a', 'ses-pre10', 'ses-10w', 'ses-9x8y7', 'ses-Ä']
    assert len(sorted(labels, key=label_key)) == len(labels)
