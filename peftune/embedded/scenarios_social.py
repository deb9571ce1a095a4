"""Dialogue scenarios among friends: invitations, presents, outings, travel."""

from peftune.embedded.grammar import Outcome, Scenario

SOCIAL_SCENARIOS = (
    Scenario(
        "invitation",
        "[I am having {an_event} on {day} at {time}.|There is {an_event} at my place on {day} at "
        "{time}.] [Will you come?|Would you like to come?|Are you free?]",
        (
            "B: [Who else is coming?|Nice, who will be there?]",
            "A: [{c} and {d}.|{c} said yes, and {d} too.|Only {c} and {d}.]",
        ),
        "{a} invites {b} to {an_event} on {day} at {time}",
        (
            Outcome(
                (
                    "B: [I would love to. I will bring {snack}.|Count me in! I can bring {snack}.]",
                    "A: [Lovely, I like {snack}.|Great, see you then.]",
                ),
                "{b} accepts and will bring {snack}.",
            ),
            Outcome(
                (
                    "B: [I would like to, but {i_excuse}.|Sorry, {i_excuse} that day.]",
                    "A: [What a shame.|We will miss you.|Next time, then.]",
                ),
                "{b} [declines|can't come] because {b_he} {excuse}.",
            ),
            Outcome(
                (
                    "B: [Yes, but I can't be there before {time2}.|I will come, but only at {time2}.]",
                    "A: [That is fine, we will wait.|No problem, come when you can.]",
                ),
                "{b} will come but [can't be there before|only at] {time2}.",
            ),
        ),
    ),
    Scenario(
        "book",
        "[Have you read {title}?|Do you know the book {title}?] [I finished it on {day}."
        "|I could not put it down.|It is wonderful.]",
        (
            "B: [What is it about?|Is it long?|Who is in it?]",
            "A: [It is about {an_job} in {city}.|It tells the story of {an_job} from {city}.]",
        ),
        "{a} recommends the book {title} to {b}",
        (
            Outcome(
                (
                    "B: [Can I borrow it until {day2}?|May I have it until {day2}?]",
                    "A: [Sure, here you are.|Yes, but be careful with it.]",
                ),
                "{b} [borrows it|will borrow it] until {day2}.",
            ),
            Outcome(
                (
                    "B: [I read it and found it boring.|I know it. It bored me.]",
                    "A: [Really? I am surprised.|Tastes differ.]",
                ),
                "{b} [has read it and found it boring|has read it but found it boring].",
            ),
            Outcome(
                (
                    "B: [Not for me. I prefer {title2}.|I would rather read {title2}.]",
                    "A: [That one is good too.|I have never heard of {title2}.]",
                ),
                "{b} [would rather read|prefers] {title2}.",
            ),
        ),
    ),
    Scenario(
        "present",
        "[What about {an_gift} for {c}'s birthday?|Let us buy {c} {an_gift} for {c_his} birthday."
        "|{c}'s birthday is on {day}. Shall we give {c_him} {an_gift}?]",
        (
            "B: [How much is it?|What does it cost?|How much would that be?]",
            "A: [It costs {price}.|They have one for {price}.|About {price}.]",
        ),
        "{a} [wants to give|suggests giving] {c} {an_gift} for {price}",
        (
            Outcome(
                (
                    "B: [Good idea, we can share the cost.|I like it. Let us split the price.]",
                    "A: [Great, I will buy it.|Fine, I will order it on {day2}.]",
                ),
                "{b} agrees to share the [cost|price].",
            ),
            Outcome(
                (
                    "B: [{c} has one already. How about {an_gift2}?|I think {an_gift2} is nicer.]",
                    "A: [You are right, {an_gift2} is better.|Okay, {an_gift2} then.]",
                ),
                "They [choose|settle on] {an_gift2} instead.",
            ),
            Outcome(
                (
                    "B: [That is too much for me.|I can't spend that much.]",
                    "A: [Then I will buy it alone.|Okay, I will give it alone.]",
                ),
                "{b} finds it too expensive, so {a} will buy it alone.",
            ),
        ),
    ),
    Scenario(
        "reschedule",
        "[I can't meet you on {day}, {i_excuse}.|I have to cancel on {day}. Sorry, {i_excuse}.]",
        (
            "B: [Oh, what a shame.|No problem, it happens.|I see. That is a pity.]",
            "A: [I was looking forward to the {place}.|The {place} will have to wait.]",
        ),
        "{a} can't meet {b} on {day} because {a_he} {excuse}",
        (
            Outcome(
                (
                    "B: [How about {day2} at {time}?|Would {day2} at {time} suit you?]",
                    "A: [{day2} is perfect.|Yes, {time} is good.]",
                ),
                "They [will meet|agree to meet] on {day2} at {time}[| instead].",
            ),
            Outcome(
                (
                    "B: [Then I will go with {c}.|I will ask {c} to come with me.]",
                    "A: [Good, have fun with {c}.|Say hello to {c}.]",
                ),
                "{b} will go with {c} instead.",
            ),
            Outcome(
                (
                    "B: [Shall we just talk on the phone at {time}?|Call me at {time} instead.]",
                    "A: [Yes, I will call you.|Good idea, talk to you at {time}.]",
                ),
                "They will talk on the phone at {time} instead.",
            ),
        ),
    ),
    Scenario(
        "trip",
        "[I want to go to {city} in {month}.|I am planning a trip to {city} in {month}."
        "|{city} in {month} would be lovely.] [Will you come along?|Do you want to join me?]",
        (
            "B: [How would we get there?|How do we travel?]",
            "A: [By train for {price}.|The train costs {price}.]",
        ),
        "{a} asks {b} to [join a trip|come on a trip] to {city} in {month}",
        (
            Outcome(
                (
                    "B: [I am in! I will book the train.|Yes! Let me buy the tickets.]",
                    "A: [Great, I will find a hotel.|Fantastic, I can't wait.]",
                ),
                "{b} agrees and will [book|buy] the train tickets.",
            ),
            Outcome(
                (
                    "B: [I would rather go to {city2}.|Could we go to {city2} instead?]",
                    "A: [{city2} is fine too.|Okay, {city2} sounds good.]",
                ),
                "{b} prefers {city2}, and {a} agrees.",
            ),
            Outcome(
                (
                    "B: [I have no holiday left.|Sorry, I have no days off in {month}.]",
                    "A: [What a pity.|Then I will ask {c}.]",
                ),
                "{b} [declines|can't come] because {b_he} has no holiday left.",
            ),
        ),
    ),
    Scenario(
        "hike",
        "[Shall we walk the {trail} on {day}?|Let us do the {trail} on {day}.|Are you up for the "
        "{trail} on {day}?]",
        (
            "B: [How long does it take?|Is it a long walk?]",
            "A: [It takes {count} hours.|About {count} hours.]",
        ),
        "{a} suggests walking the {trail} on {day}",
        (
            Outcome(
                (
                    "B: [Yes! Meet me at the {place} at {time}.|Good, we start at the {place} at "
                    "{time}.]",
                    "A: [I will be there.|Great, see you at {time}.]",
                ),
                "They will meet at the {place} at {time}.",
            ),
            Outcome(
                (
                    "B: [It is going to rain. How about {day2}?|There will be rain. Try {day2}?]",
                    "A: [Okay, {day2} then.|{day2} suits me.]",
                ),
                "Because of the rain they [choose|move it to] {day2}.",
            ),
            Outcome(
                (
                    "B: [That is too far for me. What about the {trail2}?|I prefer the {trail2}.]",
                    "A: [Fine, the {trail2} is nice too.|Okay, the {trail2}.]",
                ),
                "{b} prefers the {trail2}, and {a} agrees.",
            ),
        ),
    ),
    Scenario(
        "concert tickets",
        "[I have {count} tickets for a concert in {city} on {day}.|I got {count} tickets for the "
        "concert in {city} on {day}.] [Do you want one?|Interested?]",
        (
            "B: [How much is a ticket?|What do you want for one?]",
            "A: [{price} each.|I paid {price} for each.]",
        ),
        "{a} offers {b} a concert ticket for {price}",
        (
            Outcome(
                (
                    "B: [I will take two. One is for {c}.|Two, please. {c} will join us.]",
                    "A: [Good, that makes three of us.|Done.]",
                ),
                "{b} [takes|buys] two, one of them for {c}.",
            ),
            Outcome(
                (
                    "B: [I can't, {i_excuse}.|Sadly not, {i_excuse}.]",
                    "A: [Then I will ask {c}.|I will offer it to {c}.]",
                ),
                "{b} {excuse}, so {a} will ask {c}.",
            ),
            Outcome(
                (
                    "B: [Too expensive for me.|I don't have that much money.]",
                    "A: [I understand.|You can pay me in {month}.]",
                ),
                "{b} [declines because it is|says no because it is] too expensive.",
            ),
        ),
    ),
    Scenario(
        "restaurant",
        "[Let us try the {cuisine} restaurant by the {place} on {day}.|There is a new {cuisine} "
        "place near the {place}. Shall we go on {day}?]",
        (
            "B: [Is it expensive?|What does a meal cost?]",
            "A: [A menu costs {price}.|It is {price} for a menu.]",
        ),
        "{a} suggests [eating|having dinner] at {an_cuisine} restaurant on {day}",
        (
            Outcome(
                (
                    "B: [Great! Book a table for {time}.|Yes, get us a table at {time}.]",
                    "A: [I will do it now.|Okay, {time} it is.]",
                ),
                "{b} agrees, and {a} will book a table for {time}.",
            ),
            Outcome(
                (
                    "B: [I would rather have {cuisine2} food.|Can we eat {cuisine2} instead?]",
                    "A: [Okay, {cuisine2} is fine.|Sure, I like that too.]",
                ),
                "{b} prefers {cuisine2} food, and {a} agrees.",
            ),
            Outcome(
                (
                    "B: [Come to my place, I am cooking {dish}.|Save your money, I will make {dish}.]",
                    "A: [Even better!|I love {dish}!]",
                ),
                "{b} offers to cook {dish} [at home|at {b_his} place] instead.",
            ),
        ),
    ),
    Scenario(
        "sport",
        "[Do you want to play {sport} on {day}?|Fancy a game of {sport} on {day}?|We need one more "
        "for {sport} on {day}.]",
        (
            "B: [Who is playing?|With whom?]",
            "A: [{c} and some friends.|{c} and me.|Just {c}, so far.]",
        ),
        "{a} asks {b} to play {sport} on {day}",
        (
            Outcome(
                (
                    "B: [Yes, what about {time} at the {place}?|Sure, let us meet at the {place} at "
                    "{time}.]",
                    "A: [Good, see you there.|Okay, don't be late.]",
                ),
                "They will meet at the {place} at {time}.",
            ),
            Outcome(
                (
                    "B: [I hurt my knee, so I can't.|No, my knee still hurts.]",
                    "A: [Get well soon.|Oh, I am sorry.]",
                ),
                "{b} [declines|says no] because of {b_his} knee.",
            ),
            Outcome(
                (
                    "B: [I am bad at {sport}. Do you like {sport2}?|Could we play {sport2} instead?]",
                    "A: [Sure, {sport2} is fun.|Okay, {sport2} it is.]",
                ),
                "{b} prefers {sport2}, and {a} agrees.",
            ),
        ),
    ),
    Scenario(
        "apology",
        "[I am sorry, I broke your {colour} {gift} on {day}.|I have bad news. I dropped your {colour} "
        "{gift} on {day}, and it broke.]",
        (
            "B: [Oh no! How did it happen?|What happened?]",
            "A: [{c} pushed me.|I was carrying it to the {place}.]",
        ),
        "{a} apologises for breaking {b}'s {colour} {gift}",
        (
            Outcome(
                (
                    "B: [It cost {price}, you know.|I paid {price} for it.]",
                    "A: [I will pay you the {price}.|Here is the money.]",
                ),
                "{a} will pay {b_him} {price}.",
            ),
            Outcome(
                (
                    "B: [Don't worry, it was old.|Forget it, I never liked it.]",
                    "A: [You are very kind.|Thank you, I feel better now.]",
                ),
                "{b} [forgives {a_him}|is not angry].",
            ),
            Outcome(
                (
                    "B: [It was a present from {d}.|I got it from {d}.]",
                    "A: [I will buy a new one by {day2}.|You will get a new one by {day2}.]",
                ),
                "{a} will buy a new one by {day2}.",
            ),
        ),
    ),
)
